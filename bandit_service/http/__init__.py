"""HTTP: parse, call the router, render. Thin on purpose."""
