module tabard

go 1.26.0
