"""What the web page is told: recent decisions, reasons, health; computed once for all viewers."""
