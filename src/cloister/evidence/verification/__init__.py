"""The receipt's own checks, one pure function each, by what they look at."""
