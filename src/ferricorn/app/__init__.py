"""`ferricorn.app`: for programs that start the server themselves."""
