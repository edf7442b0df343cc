"""What words mean in a corpus: words used like one, the senses of one."""
