"""The air: Bluetooth controllers and the faulty link between them, in a process of its own."""
