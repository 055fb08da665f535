"""The command line: parse, build, call, render. One file per command."""
