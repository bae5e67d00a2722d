"""From what the operator wrote and what the machine is to what shall be."""
