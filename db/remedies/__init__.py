"""What people plan: fix lists, what-ifs, and outputs that are only supposed."""
