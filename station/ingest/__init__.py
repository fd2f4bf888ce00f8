"""What comes from hubs: verified, committed, and only then answered. Idempotent, and without state of its own."""
