-- Only indexes, which online.sql builds.
SELECT 1;
