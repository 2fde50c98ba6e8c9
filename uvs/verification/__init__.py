"""Who is it, are they joined, what is their level: the decision, and its HTTP API (`/verify/…`)."""
