"""The sections of the redactor's benchmark, and the simple redactor beside it."""
