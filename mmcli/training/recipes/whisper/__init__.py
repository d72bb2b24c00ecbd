"""How the bundled ears were made, and how they are measured."""
