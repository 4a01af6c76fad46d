"""bitfold."""
