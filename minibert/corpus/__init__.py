"""Files of any size, read and written in parts."""
