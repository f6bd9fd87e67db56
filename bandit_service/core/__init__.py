"""The pure core: events, the world they fold into, and one decision."""
