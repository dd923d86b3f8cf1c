"""What a method is asked and what it answers, once for both frameworks."""
