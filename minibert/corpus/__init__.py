"""Text files of any size, read and written in parts."""
