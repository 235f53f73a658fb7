"""The virtual vehicle: a DDI client with two slots. Talks HTTP only; knows no gateway, fleet or storage code."""
