"""What to do next, and why: plan, runner, journal, policy, guard. Knows no compiler and no protocol."""
