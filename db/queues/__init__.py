"""Tables as queues: claimed under a lease, fenced, taken back, counted. Audits, measurements and what-ifs."""
