-- prop's statement that locks a service and gives the time of the transaction.
SELECT is_known, now FROM lock_service($1)
