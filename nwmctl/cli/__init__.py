"""typer commands: parse, call, render. Decides nothing. stdout is data, stderr is talk."""
