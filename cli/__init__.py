"""The `gputopo` command: thin, one file a subcommand, heavy imports inside the commands."""
