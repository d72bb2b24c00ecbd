"""How the bundled speech model was made, and how it is measured."""
