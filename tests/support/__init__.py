"""What tests share: the ground they stand on, and what they do on it."""
