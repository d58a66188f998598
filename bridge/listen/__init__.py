"""A local receiver for people who integrate: it verifies, tells plainly what it got, and answers as it is told."""
