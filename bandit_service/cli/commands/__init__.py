"""A file is a command, named as the file: `export_model.py` is `export-model`, `import_.py` is
`import`. Its docstring is the help: the first line in short, the rest at length.

A command has `add_arguments(parser)`, and `run(args)` that returns the exit code. It is imported
when it is called and not before, so that serving loads nothing that only studies need.
"""
