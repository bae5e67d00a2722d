"""Who is connected, and what each session may send from; pure."""
