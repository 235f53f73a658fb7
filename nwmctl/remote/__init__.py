"""Other machines, over SSH: connections with a pinned host key, and files through SFTP."""
