#: --target bulid
FROM scratch AS build
