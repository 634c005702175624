"""The auditor's pages: plain links and forms, complete without script."""
