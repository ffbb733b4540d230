"""What each command of ``himac`` does."""
