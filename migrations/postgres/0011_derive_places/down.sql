DROP TABLE derived_places;
