"""What the use cases return: records that print as tables; importing them is cheap."""
