FROM armed
