"""From a name to weights: where the files are (hub), what they hold (checkpoint), and what it is called (names)."""
