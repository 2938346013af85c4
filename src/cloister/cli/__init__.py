"""The command line: thin, it reads arguments, calls a room and shows what came back."""
