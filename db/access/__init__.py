"""Who may do what: keys, people, producers, what each may see and spend, and the roles of PostgreSQL."""
