"""What pages and API ask alike: what a form sent, who may do it, and what is checked before anything is queued."""
