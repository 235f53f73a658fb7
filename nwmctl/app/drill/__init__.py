"""Attack drills: the honest house, the server, the clients, the matrix and its report."""
