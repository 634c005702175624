"""From records to what a page shows: text made safe, marks, bars and plots. No SQL."""
