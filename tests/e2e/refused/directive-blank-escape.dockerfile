# escape= 
FROM scratch
