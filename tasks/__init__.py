"""What the workers do with a claimed batch: plain functions, and one thin Celery task around them."""
