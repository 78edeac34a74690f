-- A client certificate of a disabled user logs nobody in: who is enabled or not
-- changes the answers of certauth too, whatever their key.

-- +goose Up
SELECT tabard_watch('users', 'credentials,userinfo,string', 'name', 'certauth', '');
