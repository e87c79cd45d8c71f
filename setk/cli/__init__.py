"""The commands: argument parsing and one loop each."""
