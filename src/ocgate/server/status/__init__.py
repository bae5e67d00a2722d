"""What the server says of itself: status, metrics, health, explanations, findings."""
