"""Towers, by name. See docs/extending.md to add one."""

TOWERS = {
    "linear": "dssm_core.towers.linear:Linear",
    "mlp": "dssm_core.towers.mlp:Mlp",
    "recurrent": "dssm_core.towers.recurrent:Recurrent",
    "senet": "dssm_core.towers.senet:Senet",
    "sequence": "dssm_core.towers.sequence:Sequence",
    "youtube": "dssm_core.towers.youtube:Youtube",
}
