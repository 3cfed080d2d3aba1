"""Towers, by name. See docs/extending.md to add one."""

TOWERS = {
    "mlp": "dssm_core.towers.mlp:Mlp",
}
