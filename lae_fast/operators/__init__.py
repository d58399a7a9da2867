"""The second-moment operator S, wherever it lives: exact moments, rows of X, stored entries, a sketch."""
