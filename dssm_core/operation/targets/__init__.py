"""Where a version is published: a folder, or Redis. Read protocol.py first."""
