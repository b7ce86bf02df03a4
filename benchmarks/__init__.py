"""Programs that measure n3r beside the legacy in one process and print ratios."""
